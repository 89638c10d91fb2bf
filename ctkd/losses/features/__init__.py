"""Feature losses: distances between features of student and teacher, terms next to an objective."""

"""From Gin files to one built `Run`: parse, settings, build, compatibility, identity."""

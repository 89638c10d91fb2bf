"""What `ctkd benchmark` measures, one module for each table."""

"""A user's own recordings: tables, folders and data sets, read so that what goes in is counted."""

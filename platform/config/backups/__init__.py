"""A backup: one file with the database and the part of the state folder that belongs to it."""

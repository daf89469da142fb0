"""Documents over HTTP: create and replace, list, look at one, delete; and what became of each file."""

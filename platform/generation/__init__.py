"""Prompts and engines: everything between a question with its passages and the text of an answer. Knows no Django."""

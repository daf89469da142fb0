"""Written documents with questions: the training texts, and the handbooks by which the model is examined.

`format` reads the files, `fill` puts values into their slots, `worlds` makes training worlds of them.
"""

"""The trained name finder: token classification on the bundled MiniLM, in onnxruntime.

The same few matrix products run in every process that scrubs; none of them imports torch.
"""

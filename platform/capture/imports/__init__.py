"""Logs of other systems as turns: readers of files, one module per format, and the run that hands them to capture.

``sources`` cuts files into records, the format modules (`ratchet`, `openai_chat`, `langfuse`, `phoenix`, `mapped`) turn
records into payloads of the log API and touch neither files nor database, ``grouping`` brings the records of one trace
together, and ``running`` posts them.
"""

"""OpenTelemetry traces as turns (OTLP over HTTP; OpenInference and GenAI attributes).

``views`` answers requests, ``wire`` reads and writes bodies, ``decoding`` makes plain records of spans, and
``receiving`` lets them wait, encrypted, until their trace is whole. Then ``closing``, in the worker, hands each trace
to ``joining``, which makes one turn of it, and the turn goes the way of every posted turn.
"""

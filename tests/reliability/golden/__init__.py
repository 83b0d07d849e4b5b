"""Runs as released versions wrote them, one folder each, which every later version must continue.

Make one for a release, from the root of the repository, and commit it; never change an old one:

    python -m tests.reliability.golden

    VERSION/x.npz       the data
    VERSION/stopped/    a run in the middle: config.yaml, metrics.jsonl, one checkpoint
    VERSION/finished/   the same run at its end: weights, config.json, evaluation.json
"""

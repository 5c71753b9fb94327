"""Evaluation: measures, suites, shoot-outs, benchmarks and the doctor, installed as `r1ranker_ir.eval`.

Everything here reads runs and rankers, and nothing in `r1ranker_ir` imports it but the command line, lazily.
"""

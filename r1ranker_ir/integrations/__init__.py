"""The rankers in other people's frameworks, one file each: rerankers, LangChain.

Each file imports its framework only when it is used.
"""

"""The rankers in other people's frameworks, one file each: rerankers, LangChain, LlamaIndex, Haystack, PyTerrier.

Each file imports its framework only when it is used.
"""

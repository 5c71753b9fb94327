"""Results on paper: tables, pictures, manifests.

What is measured comes from `measuring`; nothing is computed here.
"""

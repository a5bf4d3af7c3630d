"""From vectors to the nearest: index (the contract), catalogue (item ids, files, measured figures), choose (by asked recall), search.

The indexes themselves are in `anyrec/indexes`, found like any plugin.
"""

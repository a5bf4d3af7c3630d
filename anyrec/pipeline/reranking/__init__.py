"""What several rules share.

Modules:

- `reorder`: change the order or the scores of lists.
- `quotas`: choose entries within bounds on counts by category.
- `greedy_choice`: choose entries that are relevant and different from each other (MMR, DPP).
- `item_files`: files of items that rules read, and checks of item ids.
"""

"""What rules do with lists: reordering, quotas, diversity, item files."""

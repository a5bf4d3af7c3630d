"""The shelf of heads (what is predicted beside the match) and losses."""

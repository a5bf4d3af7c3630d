"""Files and Python values to checked Arrow tables: JSON, CSV, Parquet, Arrow, MovieLens."""

"""Files, data frames and Python values to Arrow tables in the types of `anyrec.data.tables.Tables`.

faults: collects faults, the first 20 of each kind.
places: where a value is in its source, as faults name it.
at: where a column is, for messages.
times: ISO 8601 texts and epoch seconds.
arrow_types: any Arrow type as one that the engine uses.
nested: checks of values of any shape.
columns: Python values to columns.
containers: the bytes of a file.
decode: JSON text to Python values.
records: records to tables.
table_columns: typed columns of tables.
csv_file: CSV files.
json_lines: JSON Lines files.
parts: users, items and interactions on their way to tables.
frames: data frames of pandas, polars and Arrow.
table_files: folders of JSON Lines, CSV and Parquet files.
movielens: folders of MovieLens.
write_json: a dataset as one JSON file.
"""

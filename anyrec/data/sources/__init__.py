"""From tables as they are to users, items and interactions, as `data.sources` of the config says.

contract: what a provider of rows is, and what it gets and returns.
open_table: the provider of a table, and its rows.
unpack: the bytes of a file without its packing, and its encoding.
text_stream: the text of a file, checked while it is read.
python_text: Python objects as programs print them, as JSON.
csv_stream: separated text.
json_stream: JSON Lines and lists of objects.
typed_files: Parquet, Arrow and Feather.
decode: files of any of these formats as one stream.
"""

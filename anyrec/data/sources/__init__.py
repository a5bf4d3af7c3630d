"""From tables as they are to users, items and interactions, as `data.sources` of the config says.

contract: what a provider of rows is, and what it gets and returns.
copies: temporary copies of what can be read only once.
open_table: the provider of a table, and its rows.
unpack: the bytes of a file without its packing, and its encoding.
text_stream: the text of a file, checked while it is read.
python_text: Python objects as programs print them, as JSON.
csv_stream: separated text.
json_stream: JSON Lines and lists of objects.
excel: sheets of spreadsheets.
typed_files: Parquet, Arrow and Feather.
stored_files: files of object stores by name, pattern and folder.
queries: queries of databases, and their errors.
decode: files of any of these formats as one stream.
nested: columns by name, also fields of nested objects.
moments: times of any spelling.
transforms: the changes of values that a column declares.
groups: rows of one key as one value.
side_tables: columns of side tables, by a key.
id_types: ids of several tables in one type.
map_table: one table as columns of roles and features.
assemble: all tables as users, items and interactions.
log_files: the files of a server's log.
log_lines: the lines of that log as columns.
log_records: the records that were put to a server, and what was removed.
event_log: the events of a server.
read_log: the log of a server as a data set.
several: several data sets as one.
"""

"""From files to a labelled and split dataset.

The order of the modules is the order of the data's way; each imports only from those before it.

ids: ids and where they stand in a table.
hashing: hashes of values.
list_columns: columns of lists.
sorting: order of many rows by group and value, and distinct numbers.
tables: users, items and interactions as Arrow columns.
order: the interactions in order of time.
summary: the counts and bounds that `describe` and the doctor report.
formats: files, data frames and Python values to tables.
labels: what each interaction means for training.
findings: what the doctor and the interpretation report.
interpretation: how types, ratings, labels and weights are understood.
histories: what each user did before, as a feature.
request_history: what the users of a request did.
checks: checks of tables as a whole.
memory_limit: whether a dataset fits into memory.
read: any supported file or folder to checked tables.
sources: tables as they are, by the config's mapping of columns.
providers: where the rows of such tables come from.
infer: the mapping of columns that is found for tables as they are.
presets: mappings of published data sets.
feast: definitions and online features of Feast.
dataset: the public form of these tables.
partial: the records of a request.
split: which interactions train, validate and test.
fingerprint: hashes of a dataset and its split.
leaks: features that reveal held-out interactions.
pairs: distinct user-item pairs, grouped by user.
learning: what one fit learns from.
item_facts: titles and categories that reports and lists show.
positives: who has which item in training.
images: image files of unknown origin.
preparation: what encoders do with a column before their layers.
scoring: how classical models score histories.
url_fetch: one file over HTTP.
describe: counts of a dataset for the terminal.
overview: counts and distributions of a dataset for pages.
suggest_set: the suggestion for interactions without order.
suggest_config: a config fitted to the data.
defaults: the keys that a config does not set.
doctor: leaks, duplicates, drift and other oddities of a dataset.
synthetic: data with planted preferences.
"""

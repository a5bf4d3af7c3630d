"""Layer 8, the command line: one file for each group of commands, all of them thin.

app        the application with all commands; entry points of `anyrec`, `train.py` and `inference.py`
train      the command train
tune       the command tune
recommend  the commands recommend and embed
evaluate   the commands evaluate, compare and report
search     the commands search and similar
index      the command index
export     the command export
add        the commands add and update
feast      the commands feast generate and feast push
hub        the command push
init       the command init
data       commands on data, configs and plugins: validate, describe, doctor, plugins, schema, convert
serve      the commands serve and key: a model over HTTP
experiment the commands experiment report and experiment off-policy
synth      the commands that generate data
run        one training run: read, fit, print, save, report
ray_train  one training run by the workers of a Ray cluster
demo       `make demo`: multi-modal data with planted preferences, a model, and lists for new users
results    tables of lists, scores, explanations and metrics
complete   values that the shell completes
options    options that several commands share
datasets   the data of a command: a file or folder, or the tables that the config names
load       how a command loads the model that its options name
terminal   the Typer classes: -v and -q, help, lines of results
one_process  commands that run in one process, whoever starts them
process    exit codes, signals and the terminal's encoding
errors     the message of an internal error
"""

"""Layer 0: config, plugins, errors and files. It knows nothing about recommending; every other layer uses it.

Config
- `config/`: every key of the config. `load_config`: reading it. `infer_types`: components without a type.
  `check_config`, `check_sources`: checks that need no data. `effects`: keys without effect. `schema`: its JSON Schema.
  `legacy`: the older flat format. `two_tower_project`: the format of another project. `translation`: what both return.
  `renamed`: former names of keys. `strict_json`: JSON values. `strict_yaml`: the same in YAML. `config_file`: files of
  both.

Plugins
- `contracts/`: the base class of each kind of component. `context`: settings that the preparation of a feature needs.
  `hooks`: installed packages. `discovery`: finding components. `class_sources`: base classes in source code.
  `registry`: components by name.
  `params`, `param_faults`, `param_keys`: options of components, their errors and schema keys.

Security
- `outside`, `trust`: what a loaded model names outside its folder. `secrets`: passwords in addresses.
  `hub_address`: addresses of models on the Hugging Face Hub.

Tensors
- `columns`: prepared columns as arrays. `ragged`: the same as tensors, with rows of different lengths.
  `windows`: interactions as sequences. `vector_cache`: a disk cache of vectors.
  `scratch`: large arrays in temporary files.
  `unit_vectors`: vectors of norm 1. `ranks`: ranks of scores, with ties. `precision`: the type of sums.
  `row_masks`: random masks of rows that are divided between processes.

Files
- `files`: complete or not at all. `outputs`: can an output be written? `manifest`, `saved_files`: reading saved models.

Process
- `errors`: all errors. `values`: values in messages. `types`: types of JSON values. `progress`: the progress bar.
  `parallel`: threads. `processes`: several processes that train one model. `shared_memory`: how those of one machine
  exchange tensors. `launcher`: whether a launcher started several.
  `sharded_tables`: tables whose rows are divided over processes. `once`: values that are computed once.
  `ray_cluster`: a Ray cluster that is joined or started. `ray_map`: work that its workers share.
  `runtime`: settings of the process. `hardware`: what the processor supports. `deadline`: a time limit for sockets.
  `post_json`: JSON over HTTP.
  `time_limit`: one for the work of a thread. `timing`: how long steps take. `version`: the version.
  `notebook`: objects as HTML.
"""

"""Mappings of published data sets, one JSON file each: what it is for, and the `data` section of a config.

Paths are patterns below the data set's folder. Tables other than the first of the interactions may be missing.

load_preset: a preset for the files of a folder.
"""

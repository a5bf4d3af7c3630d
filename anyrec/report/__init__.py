"""Layer 7: the report of a trained model.

Modules:
    collect: evaluates a model, its baselines, slices and features, and collects the results as `ReportData`.
    baselines: fits classical models on the split of the model.
    feature_importance: the metric lost if a feature is masked.
    diagnostics: properties of the embeddings; features that correlate with the scores.
    examples: recommendations for a few users, with their history and held-out items.
    groups: the section on groups of users and of items.
    traits: how many recommended items share a category or an author with users' items.
    chosen: the section on what was chosen on the validation part.
    verdict: the first paragraph of the report: is the model better than the baselines?
    sections: the sections of the report from `ReportData`.
    figures: the figures, as SVG and PNG.
    labels: the texts of the data in figures, in the installed fonts.
    numbers: intervals, differences and p values as text.
    page: a report as HTML and Markdown.
    record: which model the files of a report belong to, and which files these are.
    write: writes a report into the folder of a run.
    compare: compares the evaluations of several runs.
"""

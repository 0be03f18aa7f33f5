"""``edgeml drift`` and ``edgeml.drift``: two tables compared off line, column by column.

* :mod:`~edgeml.drift_report.tables`: CSV, Parquet, NumPy's files and frames in memory, read in
  blocks; :mod:`~edgeml.drift_report.values`: a column's cells as numbers and as text;
* :mod:`~edgeml.drift_report.survey`: one pass over the baseline says which statistics there are, on
  which grids; :mod:`~edgeml.drift_report.bundled` takes them from a bundle instead;
* :mod:`~edgeml.drift_report.counting`: a pass over each side fills the grids;
* :mod:`~edgeml.drift_report.judging`: counts become a verdict a column, by the mathematics of
  :mod:`edgeml.collector.drift`;
* :mod:`~edgeml.drift_report.result`: what comes out, :mod:`~edgeml.drift_report.page`: as HTML.

A table is never in memory whole: what is kept of a column is counts, and of the baseline's numbers
a sample to fit a grid to.
"""

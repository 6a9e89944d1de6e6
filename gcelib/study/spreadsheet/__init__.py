"""Tables of outputs and labels as people and spreadsheets write them."""

from gcelib.study.spreadsheet.reader import Pair, Table, read_table

__all__ = ["Pair", "Table", "read_table"]

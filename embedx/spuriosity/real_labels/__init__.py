"""Tables of the labels that images really have: ReaL, labelerrors.com, or a CSV of one's own.

table     the value: what a table says of the rows of a manifest
tables    which of them a file is; read strictly, as data
by_hand   the CSV: columns id, and labels or label
public    the two public ones, in JSON
"""

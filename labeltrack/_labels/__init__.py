"""Labels become integer keys, which the kernels group by, and keys become labels again.

`codes` does that for one label, `combined` for several per sample and all samples at once, `combination_codes` for
several and one batch after the other. `masks` says which samples count, by the options in `options` and `missing`;
`lookup` finds labels by value or name.
"""

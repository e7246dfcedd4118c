"""The compiled core: arrays in, arrays out, without policy."""

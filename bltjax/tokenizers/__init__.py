"""BPE tokenizers: trained here, or read from files of other projects."""

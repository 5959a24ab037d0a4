"""Import and export: LatentQA's files, own conversations, Parquet, data set cards."""

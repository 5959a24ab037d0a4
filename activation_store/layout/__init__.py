"""The store on disk: arrays, plan, shard files, commit records."""

"""The claims of notebook 04 fail where the distillation is removed, or the teacher's classes permuted."""

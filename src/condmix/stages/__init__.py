"""The stages of dvc.yaml: one file each, with a `main(params)` that reads as a recipe. Nothing imports a stage."""

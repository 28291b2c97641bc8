from condmix.cli import main

main(prog_name="condmix")

"""`python -m ctkd`: the command `ctkd` where its script is not on the path."""

from ctkd.commands.program import run_process

if __name__ == "__main__":
    run_process()

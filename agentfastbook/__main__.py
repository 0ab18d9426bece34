"`python -m agentfastbook` is the command `afb`."
from agentfastbook.cli.commands import afb

if __name__ == '__main__': afb()

"""`python -m r1ranker_ir …` is the command `r1ranker …`: for `accelerate launch -m r1ranker_ir train grpo …`."""

from r1ranker_ir.cli.app import app

app(prog_name="r1ranker")

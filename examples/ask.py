"""Ask a trained decoder about a prompt's activations, from Python.

python examples/ask.py latentqa_eval "You are a pirate." "Who speaks here?"
"""

import sys

import latentqa


def main(ref: str, prompt: str, question: str) -> None:
    """Ask `question` with `prompt` as user message, and again with it as system prompt."""
    reader = latentqa.load(ref)  # an experiment's name, train/KEY or a folder

    print(reader.ask(prompt, question))

    # the decoder now reads the activations of "Hello!" alone, if it was trained with masking
    asked = reader.ask_all("Hello!", [question, "What happens next?"], system=prompt)
    print(f"view {asked.view}, {asked.activations} activations")
    for answer in asked.answers:
        print(f"{answer.log_probability:6.2f} nats a token: {answer.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"An engine that does to its process what the question says; workers import it from here."
import os
import signal
import time

from agentfastbook.engines.retrieve import Retriever


class Deadly(Retriever):
    "Kills, exits or never ends, if the component says so."
    def __call__(self, component, chapter):
        if 'kill' in component.text: os.kill(os.getpid(), signal.SIGKILL)
        if 'exit' in component.text: raise SystemExit(3)
        if 'sleep' in component.text: time.sleep(1000)
        return super().__call__(component, chapter)

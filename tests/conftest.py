"What all tests share."
import os

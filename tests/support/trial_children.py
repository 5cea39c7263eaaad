"""A child process that takes the place of the one that loads a bundle on trial."""

import os
import signal
import sys
import time

from attendant_server import trial_process
from attendant_server.system.parent import die_with

if __name__ == "__main__":
    die_with(int(sys.argv[8]))
    trial_process._limit(int(sys.argv[6]), int(sys.argv[7]))
    match os.environ["TRIAL_CHILD"]:
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            time.sleep(600)
        case "ignores its limit":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            time.sleep(600)
        case "ends":
            sys.exit(7)

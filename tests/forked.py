"""Kernels and other processes, forked from one that has imported what they need.

Starting a kernel and importing PyTorch, pandas and Matplotlib takes five seconds of CPU
time, and the tests start forty. Here a server, the standard library's, imports them
once and forks: each kernel is still a process of its own, in which nothing has run and
into which gcelib is still to be imported. Where nothing can be forked, Jupyter starts
its kernels as ever.
"""

import multiprocessing
import os
import sys
import tempfile

#: What kernels, papermill and lessons import; none of it starts a thread.
MODULES = [
    "tqdm.auto",  # before IPython: its bars are the terminal's
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "ipywidgets",
    "matplotlib.pyplot",
    "pandas",
    "papermill",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "torch._dynamo",
]

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")


# --- Python code ----------------------------------------------------------------------


def run_code(code, arguments, output):
    """Do what ``python -c code arguments`` does; runs in the new process."""
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def python(code, *arguments):
    """Run code in a process of its own: its exit code, and all that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "output.txt")
        process = CONTEXT.Process(target=run_code, args=(code, arguments, output))
        process.start()
        process.join()
        with open(output, encoding="utf-8") as file:
            return process.exitcode, file.read()


# --- kernels --------------------------------------------------------------------------


def become_kernel(argv, environment, folder, started):
    """Leave everything of the server behind; runs in the new process."""
    os.setsid()  # the group of processes that Jupyter signals
    started.send(None)
    started.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    import matplotlib
    import pandas
    from ipykernel.kernelapp import launch_new_instance

    # What both would have found out if they had been imported in a notebook.
    matplotlib.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
    pandas.set_option("display.max_columns", 20)
    sys.argv = argv
    launch_new_instance(argv[1:])


class Forked:
    """A forked kernel, with the names of ``subprocess.Popen`` that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self.process = process
        self.pid = process.pid

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)


def fork_kernels():
    """Let Jupyter fork the kernels of this Python that this process asks for."""
    if not CAN_FORK:
        return
    from jupyter_client.provisioning import local_provisioner

    CONTEXT.set_forkserver_preload(MODULES)
    start = local_provisioner.launch_kernel

    def launch_kernel(command, *, env, cwd=None, **others):
        if command[0] != sys.executable or "ipykernel_launcher" not in command:
            return start(command, env=env, cwd=cwd, **others)
        heard, started = CONTEXT.Pipe(duplex=False)
        argv = command[command.index("ipykernel_launcher") :]
        arguments = (argv, dict(env), cwd or os.getcwd(), started)
        process = CONTEXT.Process(target=become_kernel, args=arguments, daemon=True)
        process.start()
        started.close()
        heard.recv()
        return Forked(process)

    local_provisioner.launch_kernel = launch_kernel

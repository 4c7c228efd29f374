"""What a hostile program tries, each in a few lines: it prints `ESCAPED` and what it got if it gets through.

They run with `PRELUDE` before them. What they do outside is also looked at from outside, by `escapes.py`.
"""

from msgspec import Struct

PRELUDE = """
import ctypes, os, signal, socket, struct, sys, resource, threading
libc = ctypes.CDLL(None, use_errno=True)
OUT, CANARY, HOME, VICTIM = os.environ["OUT"], os.environ["CANARY"], os.environ["KERNEL_HOME"], int(os.environ["VICTIM"])
PORT, UDP, ABSTRACT = int(os.environ["PORT"]), int(os.environ["UDP"]), os.environ["ABSTRACT"]
KEY = int(os.environ["KEY"])
ARM = os.uname().machine == "aarch64"
def escaped(what=""): print("ESCAPED", what, flush=True)
def call(x86, arm, *args):
    done = libc.syscall(arm if ARM else x86, *args)
    if done < 0: raise OSError(ctypes.get_errno(), "refused")
    return done
def read(path):
    with open(path, "rb") as f: escaped(f.read(200))
"""


class Payload(Struct, frozen=True):
    """One attempt.

    Attributes:
        gap: Which of `GAPS` it goes through behind Landlock alone; empty when that stops it.
        work: Its workspace, below `OUT`.
        read: What else it is given to read, below `OUT`.
    """

    name: str
    code: str
    gap: str = ""
    work: str = "work"
    read: tuple[str, ...] = ()


HOME = "around/in/home"
"""The kernel's, below `OUT`."""


OWN_FILES = "modes, owners and times of your own files, by their path"
OTHER_PROCESSES = "resource limits and priorities of your other processes"
UNIX_SOCKETS = "Unix sockets that have a path, wherever they lie"
COUNTS = "the number of processes and threads where no control group can be made and you are root"
TEMPORARY_FILES = "the total size of temporary files"
GAPS = (OWN_FILES, OTHER_PROCESSES, UNIX_SOCKETS, COUNTS, TEMPORARY_FILES)
"""What Landlock alone leaves open, in the words of docs/concepts/sandbox.md."""


READS = (
    Payload("reads a file by its path", "read(CANARY)"),
    Payload("climbs out of the workspace", "read('../' * 40 + CANARY.lstrip('/'))"),
    Payload("follows a symlink of its own", "os.symlink(CANARY, 'link'); read('link')"),
    Payload("follows a symlink to a folder", "os.symlink('/', 'root'); read('root' + CANARY)"),
    Payload("makes a hard link", "os.link(CANARY, 'hard'); read('hard')"),
    Payload("reads through the root of process 1", "read('/proc/1/root' + CANARY)"),
    Payload("reads through its own root", "read('/proc/self/root' + CANARY)"),
    Payload("reads through the victim's root", "read(f'/proc/{VICTIM}/root' + CANARY)"),
    Payload("reads through the victim's folder", "read(f'/proc/{VICTIM}/cwd/canary')"),
    Payload("reads the victim's environment", "read(f'/proc/{VICTIM}/environ')"),
    Payload("reads the victim's command line", "read(f'/proc/{VICTIM}/cmdline')"),
    Payload("reads the victim's memory", "open(f'/proc/{VICTIM}/mem', 'rb'); escaped()"),
    Payload("lists the victim's files", "escaped(os.listdir(f'/proc/{VICTIM}/fd'))"),
    Payload("reads the accounts' passwords", "read('/etc/shadow')"),
    Payload("reads the host's keys", "escaped(os.listdir('/etc/ssh'))"),
    Payload("reads a private TLS key", "escaped(os.listdir('/etc/ssl/private'))"),
    Payload("reads the owner's token", "read(HOME + '/token')"),
    Payload("reads the kernel's database", "read(HOME + '/aios.db')"),
    Payload("lists the kernel's home", "names = os.listdir(HOME); assert names; escaped(names)"),
    Payload("reads a key below the user's home", "read(os.environ['USER_HOME'] + '/.ssh/id')"),
    Payload("reads a password file", "read(os.environ['USER_HOME'] + '/.netrc')"),
    Payload(
        "lists the parent of the workspace",
        "n = set(os.listdir('..')) - {'work'}; assert n; escaped(n)",
    ),
    Payload("sees the kernel's environment", "assert 'ENV_CANARY' in os.environ; escaped()"),
    Payload(
        "inherits an open file",
        "own = {(s.st_dev, s.st_ino) for s in map(os.fstat, (0, 1, 2))}\n"
        "for fd in range(3, 4096):\n"
        "    try: s = os.fstat(fd)\n"
        "    except OSError: continue\n"
        "    if (s.st_dev, s.st_ino) not in own: escaped((fd, oct(s.st_mode)))",
    ),
    Payload(
        "opens by handle",
        "h = struct.pack('<II128s', 128, 0, b''); b = ctypes.create_string_buffer(h); m = ctypes.c_int()\n"
        "call(303, 264, -100, b'/', b, ctypes.byref(m), 0); escaped()",
    ),
)

WRITES = (
    Payload("writes beside the workspace", "open(OUT + '/new', 'w').write('x'); escaped()"),
    Payload("appends to the canary", "open(CANARY, 'a').write('x'); escaped()"),
    Payload("truncates the canary", "os.truncate(CANARY, 0); escaped()"),
    Payload("removes the canary", "os.unlink(CANARY); escaped()"),
    Payload("moves the canary", "os.rename(CANARY, OUT + '/moved'); escaped()"),
    Payload(
        "opens the canary to all",
        "os.chmod(CANARY, 0o777); assert os.stat(CANARY).st_mode & 2; escaped()",
        gap=OWN_FILES,
    ),
    Payload(
        "swaps a folder for a symlink",
        "os.mkdir('a'); os.rename('a', 'b'); os.symlink(OUT, 'a'); open('a/new', 'w'); escaped()",
    ),
    Payload("changes a program of the system", "open('/usr/bin/env', 'r+b'); escaped()"),
    Payload("adds to the system's folders", "open('/usr/lib/evil.so', 'w'); escaped()"),
    Payload(
        "adds an account", "open('/etc/passwd', 'a').write('evil:x:0:0::/:/bin/sh'); escaped()"
    ),
    Payload("writes into the root", "open('/evil', 'w'); escaped()"),
    Payload(
        "changes its own interpreter", "open(os.path.realpath(sys.executable), 'r+b'); escaped()"
    ),
    Payload("changes a library of Python", "open(os.__file__, 'r+'); escaped()"),
    Payload(
        "sets where cores are dumped",
        "f = open('/proc/sys/kernel/core_pattern', 'r+'); old = f.read(); f.seek(0); f.write(old); f.flush(); escaped()",
    ),
    Payload(
        "changes the kernel through /sys", "os.open('/sys/power/state', os.O_WRONLY); escaped()"
    ),
    Payload(
        "makes a device",
        "os.mknod('dev', 0o60666, os.makedev(8, 0)); os.open('dev', os.O_RDWR); escaped()",
    ),
    Payload("opens the machine's memory", "open('/dev/mem', 'rb'); escaped()"),
    Payload("mounts over a folder", "call(165, 40, b'/', b'/tmp', b'none', 4096, 0); escaped()"),
    Payload("mounts again, writable", "call(165, 40, b'none', b'/usr', b'none', 32, 0); escaped()"),
    Payload("unmounts what hides", "call(166, 39, HOME.encode(), 2); escaped()"),
    Payload("mounts the new way", "call(430, 430, b'tmpfs', 0); escaped()"),
    Payload("clones a mount", "call(428, 428, -100, b'/', 1); escaped()"),
    Payload("changes its root", "call(161, 51, b'.'); escaped()"),
    Payload("swaps its root", "call(155, 41, b'.', b'.'); escaped()"),
)

NAMESPACES = (
    Payload("makes a namespace of users", "call(272, 97, 0x10000000); escaped()"),
    Payload("makes a namespace of mounts", "call(272, 97, 0x20000); escaped()"),
    Payload(
        "clones into a new namespace",
        "pid = call(56, 220, 0x10000011, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nescaped()",
    ),
    Payload("clones the new way", "call(435, 435, 0, 0); escaped()"),
    Payload(
        "joins the host's namespace",
        "f = os.open('/proc/1/ns/mnt', os.O_RDONLY); call(308, 268, f, 0); escaped()",
    ),
    Payload("becomes root", "os.setuid(0); read('/etc/shadow')"),
    Payload(
        "may gain rights by a set-uid program", "assert libc.prctl(39, 0, 0, 0, 0) == 0; escaped()"
    ),
    Payload(
        "takes back its promise of no new rights",
        "assert libc.prctl(38, 0, 0, 0, 0) == 0; escaped()",
    ),
    Payload(
        "has capabilities",
        "h = ctypes.create_string_buffer(struct.pack('<Ii', 0x20080522, 0)); d = ctypes.create_string_buffer(24)\n"
        "call(125, 90, h, d)\n"
        "e = struct.unpack('<6I', d.raw); assert e[0] or e[3]\n"
        "call(161, 51, b'.'); escaped(e)",
    ),
    Payload("lifts its filter of calls", "assert libc.prctl(22, 0, 0, 0, 0) == 0; escaped()"),
)

KERNEL = (
    Payload("stores a key", "call(248, 217, b'user', b'k', b'v', 1, -3); escaped()"),
    Payload("reads the keyring", "call(250, 219, 0, -3, 0); escaped()"),
    Payload("loads a BPF program", "call(321, 280, 0, b'\\0' * 128, 128); escaped()"),
    Payload("watches the processor", "call(298, 241, b'\\0' * 112, 0, -1, -1, 0); escaped()"),
    Payload("handles page faults", "call(323, 282, 0); escaped()"),
    Payload("makes an io_uring", "call(425, 425, 8, ctypes.create_string_buffer(256)); escaped()"),
    Payload("loads a module", "call(175, 105, b'x', 1, b''); escaped()"),
    Payload("boots another kernel", "call(246, 104, 0, 0, 0, 0); escaped()"),
    Payload("restarts the machine", "call(169, 142, 0, 0, 0, 0); escaped()"),
    Payload("sets the clock", "call(227, 112, 0, struct.pack('<qq', 1, 0)); escaped()"),
    Payload(
        "reads the kernel's log",
        "call(103, 116, 3, ctypes.create_string_buffer(64), 64); escaped()",
    ),
    Payload("switches its personality", "call(135, 92, 0x40000); escaped()"),
    Payload("watches all files", "call(300, 262, 0, 0); escaped()"),
)

OTHERS = (
    Payload("kills the victim", "os.kill(VICTIM, 9); escaped()"),
    Payload("sees whether the victim lives", "os.kill(VICTIM, 0); escaped()"),
    Payload(
        "kills all it can", "signal.signal(15, signal.SIG_IGN); os.kill(-1, 15); print('done')"
    ),
    Payload(
        "opens the victim by pidfd",
        "f = os.pidfd_open(VICTIM); signal.pidfd_send_signal(f, 9); escaped()",
    ),
    Payload("traces the victim", "call(101, 117, 16, VICTIM, 0, 0); escaped()"),
    Payload("copies out of the victim", "call(310, 270, VICTIM, 0, 0, 0, 0, 0); escaped()"),
    Payload(
        "takes a file of the victim",
        "f = os.pidfd_open(VICTIM); call(438, 438, f, 0, 0); escaped()",
    ),
    Payload(
        "types into the terminal",
        "import fcntl\nt = os.open('/dev/tty', os.O_RDWR)\nfcntl.ioctl(t, 0x5412, b'x'); escaped()",
    ),
    Payload(
        "reads memory that programs share",
        "i = call(29, 194, KEY, 0, 0)\nlibc.shmat.restype = ctypes.c_void_p\nescaped(ctypes.string_at(libc.shmat(i, None, 0), 20))",
    ),
    Payload(
        "takes a letter out of a queue",
        "q = call(68, 186, KEY, 0)\nb = ctypes.create_string_buffer(64)\ncall(70, 188, q, b, 50, 0, 0o4000)\nescaped(b.raw)",
    ),
    Payload("types into its own input", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x'); escaped()"),
    Payload(
        "limits the victim",
        "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (1, 1)); escaped()",
        gap=OTHER_PROCESSES,
    ),
    Payload(
        "slows the victim down",
        "os.setpriority(os.PRIO_PROCESS, VICTIM, 19); escaped()",
        gap=OTHER_PROCESSES,
    ),
    Payload(
        "outlives its parent",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time; open('alive', 'w').write('x'); time.sleep(60)\n    os._exit(0)\nos.wait()\nwhile not os.path.exists('alive'): pass",
    ),
)

NETWORK = (
    Payload("connects over IPv4", "socket.create_connection(('127.0.0.1', PORT), 2); escaped()"),
    Payload("connects over IPv6", "socket.create_connection(('::1', PORT), 2); escaped()"),
    Payload(
        "sends a datagram",
        "s = socket.socket(2, 2); s.sendto(b'x', ('127.0.0.1', UDP)); print('sent')",
    ),
    Payload(
        "sends a datagram over IPv6",
        "s = socket.socket(10, 2); s.sendto(b'x', ('::1', UDP)); print('sent')",
    ),
    Payload(
        "reaches beyond the machine", "socket.create_connection(('192.0.2.1', 80), 1); escaped()"
    ),
    Payload("asks for a name", "escaped(socket.getaddrinfo('example.com', 80))"),
    Payload(
        "has a way out",
        "lines = open('/proc/net/route').read().splitlines()[1:]; assert lines; escaped(lines)",
    ),
    Payload(
        "connects to an abstract socket",
        "s = socket.socket(1); s.connect('\\0' + ABSTRACT); escaped()",
    ),
    Payload(
        "connects to a socket by its path",
        "s = socket.socket(1); s.connect(OUT + '/sock'); escaped()",
        gap=UNIX_SOCKETS,
    ),
    Payload("opens a raw socket", "socket.socket(2, 3, 1); escaped()"),
    Payload("opens a packet socket", "socket.socket(17, 3, 0); escaped()"),
    Payload("opens a vsock", "socket.socket(40, 1); escaped()"),
    Payload("opens a crypto socket", "socket.socket(38, 5); escaped()"),
    Payload(
        "serves on the host's port",
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print('bound', s.getsockname()[1])",
    ),
)

GREED = (
    Payload("forks without end", "n = 0\ntry:\n    while n < 400:\n        if os.fork() == 0: signal.pause()\n        n += 1\nexcept OSError: os._exit(0)\nescaped(n)", gap=COUNTS),
    Payload("starts threads without end", "e = threading.Event(); n = 0\ntry:\n    while n < 400: threading.Thread(target=e.wait, daemon=True).start(); n += 1\nexcept (RuntimeError, MemoryError): os._exit(0)\nescaped(n)", gap=COUNTS),
    Payload("takes all memory", "x = bytearray(600 << 20); escaped(len(x))"),
    Payload("maps all memory", "import mmap\nx = mmap.mmap(-1, 600 << 20); escaped(len(x))"),
    Payload("fills /tmp", "n = 0\nwhile n < 40:\n    with open(os.environ['TMPDIR'] + f'/{n}', 'wb') as f: f.write(bytes(1 << 20))\n    n += 1\nescaped(n)", gap=TEMPORARY_FILES),
    Payload("fills shared memory", "n = 0\nwhile n < 40:\n    with open(f'/dev/shm/{n}', 'wb') as f: f.write(bytes(1 << 20))\n    n += 1\nescaped(n)"),
    Payload("writes a file without end", "signal.signal(25, signal.SIG_IGN)\nwith open('big', 'wb', 0) as f:\n    for _ in range(24): assert f.write(bytes(1 << 20)) == 1 << 20\nescaped()"),
    Payload("opens files without end", "fs = [open('/dev/null') for _ in range(1200)]; escaped(len(fs))"),
    Payload("burns the processor", "while True: pass"),
    Payload("dumps core", "assert resource.getrlimit(resource.RLIMIT_CORE)[1]; escaped()"),
    Payload("lifts its limits", "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2); x = bytearray(600 << 20); escaped()"),
)  # fmt: skip

NEAR = (
    Payload("works in the kernel's home", "read('token')", work=HOME),
    Payload("works among logs of the kernel", "read('1.log')", work=f"{HOME}/logs"),
    Payload("works among its policies", "open('evil.cedar', 'w')", work=f"{HOME}/policies"),
    Payload("works around its home", "read(HOME + '/token')", work="around"),
    Payload("works just around its home", "read('home/aios.db')", work="around/in"),
    Payload("lists its home from around it", "names = os.listdir(HOME); assert names; escaped(names)", work="around"),
    Payload("links to its home from around it", "os.symlink('in/home', 'link'); read('link/token')", work="around"),
    Payload("links to the token from around it", "os.link('in/home/token', 'hard'); read('hard')", work="around"),
    Payload("adds a policy from around it", "os.makedirs(HOME + '/policies'); open(HOME + '/policies/evil.cedar', 'w')", work="around"),
    Payload("removes its home from around it", "import shutil; shutil.rmtree('in', ignore_errors=True)", work="around"),
    Payload("moves its home", "os.rename(HOME, 'moved'); escaped()", work="around"),
    Payload("moves the folder around its home", "os.rename('in', 'moved'); escaped()", work="around"),
    Payload("swaps the folder around its home", "os.mkdir('new'); call(316, 276, -100, b'in', -100, b'new', 2); escaped()", work="around"),
    Payload("is given the kernel's home to read", "read(HOME + '/token')", read=(HOME,)),
    Payload("is given what is around its home to read", "read(HOME + '/token')", read=("around",)),
    Payload("is given the owner's token to read", "read(HOME + '/token')", read=(f"{HOME}/token",)),
    Payload("is given the secrets to read", "read(HOME + '/secrets.json')", read=(f"{HOME}/secrets.json",)),
    Payload("is given the database to read", "read(HOME + '/aios.db')", read=(f"{HOME}/aios.db",)),
    Payload("is given the logs of others to read", "read(HOME + '/logs/1.log')", read=(f"{HOME}/logs",)),
    Payload("is given where the kernel is served to read", "read(HOME + '/run/kernel.json')", read=(f"{HOME}/run",)),
    Payload("works in the user's home and reads a key", "read('.ssh/id')", work="user"),
    Payload("works in the user's home and reads a password", "read('.netrc')", work="user"),
    Payload("works among keys", "read('id')", work="user/.ssh"),
    Payload("moves keys", "os.rename('.ssh', 'moved'); escaped()", work="user"),
    Payload("moves a file of passwords", "os.rename('.netrc', 'moved'); escaped()", work="user"),
    Payload("moves the folder around keys", "os.rename('.config', 'moved'); escaped()", work="user"),
)  # fmt: skip

PAYLOADS = (*READS, *WRITES, *NAMESPACES, *KERNEL, *OTHERS, *NETWORK, *GREED, *NEAR)

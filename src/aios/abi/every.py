"""Every system call and every answer as one type each, for who reads any of them: the server, the journal, the docs.

Whoever makes calls of a kind imports their own module alone: all of them together take a quarter of the time in which a small program starts.
The kernel's table of handlers is `kernel/syscall.py`.
"""

from aios.abi import approvals, branches, checkpoints, mcp, timers, tools
from aios.abi.budget import Budget, BudgetInfo, SetBudget
from aios.abi.call import Done
from aios.abi.calls import (
    Admit,
    Chat,
    ChatAnswer,
    Complete,
    CompleteAnswer,
    Cont,
    CountTokens,
    Embed,
    Embeddings,
    Exited,
    ExitSelf,
    GetPid,
    Guest,
    Info,
    KernelInfo,
    Kill,
    Log,
    LogEnd,
    Logs,
    Nice,
    Niced,
    Processes,
    Ps,
    Self,
    SendSignal,
    Shutdown,
    Signalled,
    Stop,
    TokenCount,
    Tokenize,
    Tokens,
    Wait,
)
from aios.abi.contexts import (
    Compacted,
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextForget,
    ContextFork,
    ContextInfo,
    ContextInfos,
    ContextList,
    ContextMessages,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    ContextStat,
    ContextUndo,
    SnapshotInfo,
    SnapshotInfos,
)
from aios.abi.deadletters import DeadLetterDrop, DeadLetterList, DeadLetters, DeadLetterSend
from aios.abi.fork import Fork, Forked
from aios.abi.gate import Advance, Change, Fault, Line, Result, Token
from aios.abi.interactions import (
    BlockStatistics,
    Interactions,
    Logged,
    MemoryLog,
    MemoryRead,
    MemoryStat,
)
from aios.abi.journal import EventList, Events, JournalRead, JournalRecords
from aios.abi.links import FileLink, FileLinks, FileUnlink, LinkInfos
from aios.abi.mail import (
    Broadcast,
    Broadcasted,
    Mailbox,
    MailboxStatistics,
    Publish,
    Published,
    Receive,
    Received,
    Send,
    Sent,
    Subscribe,
)
from aios.abi.memory import (
    Forget,
    Forgotten,
    LinkNotes,
    MemoryCheck,
    MemoryGet,
    MemoryList,
    MemoryUsage,
    MemoryUsed,
    NoteDetails,
    Notes,
    NotesChecked,
    Recall,
    Recalled,
    Remember,
    Remembered,
    TagNote,
    Update,
)
from aios.abi.mounts import FileMount, FileMounts, FileUmount, MountInfos
from aios.abi.pages import Pages, PageStores
from aios.abi.recovery import (
    AnswerQuestion,
    DrawBytes,
    Moment,
    Now,
    Question,
    QuestionList,
    Questions,
    RandomBytes,
)
from aios.abi.retrieval import (
    FileGroupBy,
    FileGroups,
    FileIndex,
    FileJoin,
    FileJoined,
    FileReindex,
    FileRetrieve,
    IndexInfo,
    Retrieved,
)
from aios.abi.sched import Sched, SchedInfo, SetSched
from aios.abi.spawn import Spawn, Spawned
from aios.abi.storage import (
    Changes,
    Checked,
    Content,
    Difference,
    Draft,
    Edited,
    FileCheck,
    FileCollect,
    FileDiff,
    FileDraft,
    FileEdit,
    FileList,
    FileLock,
    FilePurge,
    FileQuota,
    FileRead,
    FileRollback,
    Files,
    FileShare,
    FileShares,
    FileStat,
    FileUnlock,
    FileUsage,
    FileVersions,
    FileWatch,
    Purged,
    Shares,
    Usages,
    Versions,
)
from aios.abi.trace import SchedTrace, SchedTraced
from aios.abi.undo import Undo, Undone

AnyCall = (
    Spawn | Fork | Admit | Wait | Kill | Stop | Cont | SendSignal | Ps | GetPid | ExitSelf | Nice
    | Chat | Complete | Embed | Tokenize | CountTokens
    | Log | Logs | Info | Shutdown
    | Budget | SetBudget
    | Sched | SetSched | SchedTrace
    | Send | Receive | Publish | Broadcast | Subscribe | Mailbox | DeadLetters | DeadLetterSend | DeadLetterDrop
    | ContextOpen | ContextAppend | ContextFork | ContextClose | ContextStat | ContextList | ContextRead
    | ContextCompact | ContextUndo | ContextFault
    | ContextSnapshot | ContextRestore | ContextSnapshots | ContextForget
    | FileEdit | FileDraft | FileRollback | FilePurge | FileRead | FileList | FileStat | FileVersions | FileDiff
    | FileMount | FileUmount | FileMounts
    | FileLink | FileUnlink | FileLinks
    | Undo
    | FileWatch | FileShare | FileShares | FileLock | FileUnlock | FileUsage | FileQuota | FileCollect | FileCheck
    | FileRetrieve | FileGroupBy | FileJoin | FileIndex | FileReindex
    | Remember | Recall | MemoryGet | Update | Forget | LinkNotes | TagNote | MemoryList | MemoryUsage | MemoryCheck
    | MemoryLog | MemoryRead | MemoryStat
    | tools.ToolRegister | tools.ToolUnregister | tools.ToolList | tools.ToolDescribe | tools.ToolRun
    | tools.ToolTake | tools.ToolReturn
    | mcp.McpList | mcp.McpCheck | mcp.McpTools | mcp.McpTrust
    | approvals.ApprovalList | approvals.ApprovalAnswer | approvals.ApprovalRevoke | approvals.AskHuman
    | JournalRead | Events
    | Now | DrawBytes | Questions | AnswerQuestion
    | Pages
    | branches.Branch | branches.BranchCommit | branches.BranchDiscard | branches.BranchJoin | branches.BranchList
    | checkpoints.Checkpoint | checkpoints.CheckpointRestore | checkpoints.CheckpointList | checkpoints.CheckpointRemove
    | timers.SleepUntil | timers.TimerAdd | timers.TimerList | timers.TimerRemove | timers.TimerRun
)  # fmt: skip

AnyAnswer = (
    Done | Spawned | Forked | Guest | Exited | Signalled | Processes | Self | Niced
    | ChatAnswer | CompleteAnswer | Embeddings | Tokens | TokenCount
    | LogEnd | KernelInfo
    | BudgetInfo
    | SchedInfo | SchedTraced
    | Sent | Received | Published | Broadcasted | MailboxStatistics | DeadLetterList
    | ContextInfo | ContextInfos | ContextMessages | Compacted | SnapshotInfo | SnapshotInfos
    | Edited | Draft | Purged | Content | Files | Versions | Difference | Changes | Shares | Usages | Checked
    | MountInfos | LinkInfos | Undone
    | Retrieved | FileGroups | FileJoined | IndexInfo
    | Remembered | Recalled | NoteDetails | Forgotten | Notes | MemoryUsed | NotesChecked
    | Logged | Interactions | BlockStatistics
    | tools.ToolNames | tools.Tools | tools.ToolResult | tools.ToolJobs | mcp.McpServers | mcp.McpToolList
    | approvals.ApprovalInfos | approvals.Approval | approvals.HumanAnswer
    | JournalRecords | EventList
    | Moment | RandomBytes | QuestionList | Question
    | PageStores
    | branches.Branched | branches.BranchEnd | branches.BranchGroups
    | checkpoints.CheckpointInfo | checkpoints.CheckpointInfos | checkpoints.Restored
    | timers.TimerInfo | timers.TimerInfos
)  # fmt: skip

Frame = Token | Line | Change | Advance | Result[AnyAnswer] | Fault

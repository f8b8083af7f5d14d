// deny_io_uring EPERM|ENOSYS COMMAND [ARGUMENT...]: runs COMMAND where io_uring_setup answers with
// that error, as a container's seccomp filter does (EPERM) or a kernel without io_uring (ENOSYS).
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const std::string_view error = argc > 2 ? argv[1] : "";
  if (error != "EPERM" && error != "ENOSYS") {
    std::fputs("usage: deny_io_uring EPERM|ENOSYS COMMAND [ARGUMENT...]\n", stderr);
    return 2;
  }
  const unsigned denied = SECCOMP_RET_ERRNO | (error == "EPERM" ? EPERM : ENOSYS);
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, denied),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = sizeof code / sizeof *code, .filter = code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    std::perror("seccomp");
    return 2;
  }
  execvp(argv[2], argv + 2);
  std::perror(argv[2]);
  return 2;
}

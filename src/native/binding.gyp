{
  "targets": [
    {
      "target_name": "balloond_native",
      "sources": [
        "binding.c", "watch.c", "behind.c", "fd.c", "socket.c", "mapping.c", "memfd.c", "eventfd.c", "discard.c",
        "sigbus.c", "writer.c", "clock.c"
      ],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    }
  ]
}

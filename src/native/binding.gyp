{
  "targets": [
    {
      "target_name": "balloond_native",
      "sources": ["binding.c", "socket.c", "mapping.c", "eventfd.c", "discard.c"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    }
  ]
}

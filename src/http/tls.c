/* The TLS transport: OpenSSL on a non-blocking socket, TLS 1.2 and 1.3, ALPN http/1.1.
 *
 * The handshake is made by the first reads. A read that has to write, and a write that has to read,
 * are tried again at the next event of either kind.
 *
 * Happy path: as the plain transport, with a session between.
 * Failure modes: a broken record or handshake: HTTP_TRANSPORT_GONE. A certificate that does not
 * load, or a key that does not fit: ERR_CONFIG with OpenSSL's reason. */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "http/connection.h"

struct http_tls {
    SSL_CTX *context;
};

static int select_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_size,
                           const unsigned char *offered, unsigned int offered_size, void *argument)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    (void)ssl;      /* the signature is OpenSSL's */
    (void)argument; /* as above */
    if (SSL_select_next_proto(&chosen, ret_size, ours, sizeof(ours) - 1, offered, offered_size) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *ret = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static enum err fail(struct err_detail *detail, const char *what, const char *file)
{
    char reason[160];
    ERR_error_string_n(ERR_get_error(), reason, sizeof(reason));
    ERR_clear_error();
    err_detail_set(detail, "%s %s: %s", what, file, reason);
    return ERR_CONFIG;
}

static enum err load(SSL_CTX *context, const char *cert_file, const char *key_file,
                     struct err_detail *detail)
{
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(context, cert_file) != 1) {
        return fail(detail, "load certificate", cert_file);
    }
    if (key_file == NULL || SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1) {
        return fail(detail, "load key", key_file == NULL ? "(not set)" : key_file);
    }
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
    return ERR_OK;
}

enum err http_tls_create(struct http_tls **ret, const char *cert_file, const char *key_file,
                         struct err_detail *detail)
{
    struct http_tls *tls = mem_alloc(sizeof(*tls));
    tls->context = SSL_CTX_new(TLS_server_method());
    enum err err = tls->context == NULL ? fail(detail, "start TLS for", cert_file)
                                        : load(tls->context, cert_file, key_file, detail);
    if (err == ERR_OK) {
        *ret = tls;
        tls = NULL; /* the caller owns it now */
    }
    http_tls_destroy(tls);
    return err;
}

void http_tls_destroy(struct http_tls *tls)
{
    if (tls != NULL) {
        SSL_CTX_free(tls->context);
        mem_free(tls);
    }
}

enum err http_tls_open(const struct http_tls *tls, struct http_connection *connection)
{
    SSL *ssl = SSL_new(tls->context);
    if (ssl == NULL || SSL_set_fd(ssl, connection->fd) != 1) {
        SSL_free(ssl);
        ERR_clear_error();
        return ERR_NO_MEMORY;
    }
    SSL_set_accept_state(ssl);
    connection->tls = ssl;
    connection->transport = &http_transport_tls;
    return ERR_OK;
}

static ssize_t tls_read(struct http_connection *connection, void *to, size_t size)
{
    size_t got = 0;
    ERR_clear_error();
    if (SSL_read_ex(connection->tls, to, size, &got) == 1) {
        return (ssize_t)got;
    }
    switch (SSL_get_error(connection->tls, 0)) {
    case SSL_ERROR_WANT_READ:
        connection->readable = false;
        return HTTP_TRANSPORT_LATER;
    case SSL_ERROR_WANT_WRITE:
        return HTTP_TRANSPORT_LATER; /* still readable: an event of writing tries again */
    case SSL_ERROR_ZERO_RETURN:
        connection->readable = false;
        return 0;
    default:
        connection->readable = false;
        return HTTP_TRANSPORT_GONE;
    }
}

/* A write takes one record's worth at most, so it is repeated until all is taken or it would block:
 * no event tells of room that was never missing. */
static ssize_t tls_write(struct http_connection *connection, const void *from, size_t size)
{
    const uint8_t *bytes = from;
    size_t total = 0;
    size_t sent = 0;
    ERR_clear_error();
    while (total < size && SSL_write_ex(connection->tls, bytes + total, size - total, &sent) == 1) {
        total += sent;
    }
    if (total == size) {
        return (ssize_t)total;
    }
    int reason = SSL_get_error(connection->tls, 0);
    connection->writable = false;
    if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) {
        return HTTP_TRANSPORT_GONE;
    }
    return total > 0 ? (ssize_t)total : HTTP_TRANSPORT_LATER;
}

static void tls_shutdown(struct http_connection *connection)
{
    ERR_clear_error();
    (void)SSL_shutdown(connection->tls);     /* best effort: the peer may be gone */
    (void)shutdown(connection->fd, SHUT_WR); /* as above */
}

static void tls_close(struct http_connection *connection, bool reset)
{
    if (!reset && SSL_is_init_finished(connection->tls)) {
        ERR_clear_error();
        (void)SSL_shutdown(connection->tls); /* best effort: the peer may be gone */
    }
    SSL_free(connection->tls);
    connection->tls = NULL;
    ERR_clear_error();
    http_transport_close_fd(connection, reset);
}

const struct http_transport http_transport_tls = {
    .read = tls_read,
    .write = tls_write,
    .shutdown = tls_shutdown,
    .close = tls_close,
};

# mail.rb PORT FROM TO BODY-FILE
require "mail"
port, from, to, body_file = ARGV
Mail.defaults { delivery_method :smtp, address: "127.0.0.1", port: port.to_i }
message = Mail.new(charset: "UTF-8", from: from, to: to, subject: "From Ruby", body: File.read(body_file, encoding: "UTF-8"))
message.deliver!
